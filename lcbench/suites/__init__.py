"""The suites, one module a file: in a wheel they lie here, in a checkout in the top-level `suites/`."""

from lcbench.paths import package_path

__path__ += package_path("suites")

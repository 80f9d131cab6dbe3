"""The suites, a module a file: here in a wheel, in the top-level `suites/` in a checkout."""

from lcbench.paths import package_path

__path__ += package_path("suites")

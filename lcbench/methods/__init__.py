"""The methods, one module a file: in a wheel they lie here, in a checkout in the top-level `methods/`."""

from lcbench.paths import package_path

__path__ += package_path("methods")

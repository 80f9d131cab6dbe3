"""The methods, a module a file: here in a wheel, in the top-level `methods/` in a checkout."""

from lcbench.paths import package_path

__path__ += package_path("methods")

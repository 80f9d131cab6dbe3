"""The methods, one module a file: in a wheel they lie here, in a checkout in the top-level `methods/`."""

from lcbench.paths import checkout_folder

__path__ += checkout_folder("methods")

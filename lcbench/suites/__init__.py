"""The suites, one module a file: in a wheel they lie here, in a checkout in the top-level `suites/`."""

from lcbench.paths import checkout_folder

__path__ += checkout_folder("suites")

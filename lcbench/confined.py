"""What the fork server loads before all else: its loading leaves secrets and the network behind."""

from lcbench import confinement

confinement.restart_without_secrets()
confinement.cut_network()

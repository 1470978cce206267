"""The files of volumes: directories on a workstation, claims in a cluster."""

"""Where the files of volumes are: directories on a workstation, claims in a cluster."""

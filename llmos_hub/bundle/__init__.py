"""``llmos bundle``: a directory with everything for an installation in a cluster without internet."""

"""``llmos bundle``: everything that an installation in a cluster without internet needs, in one directory."""

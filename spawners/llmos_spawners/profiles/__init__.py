"""The choices at the start of a server: what a site offers, the form, and what a user chose."""

"""The database functions, one file each, versioned by name; `migrate` installs them."""

"""What taskq does per core and per second, beside its peers on the same servers; see README.md."""

"""How the property tests of this folder run."""

from hypothesis import settings

# Time is asserted nowhere, and nothing is left behind in the working folder.
settings.register_profile("taskq", deadline=None, database=None)
settings.load_profile("taskq")

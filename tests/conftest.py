"""Where the fixtures of all tests come from, and how property tests run."""

import os

from hypothesis import settings

pytest_plugins = [
    "tests.support.rabbit",
    "tests.support.proxy",
    "tests.support.amqp",
    "tests.support.ledger",
    "tests.support.process",
    "tests.support.beats",
    "tests.support.stores",
    "tests.support.site",
    "tests.support.steering",
    "tests.support.stores",
]

# Time is asserted nowhere, nothing is left behind in the working folder, and CI tries the same
# examples each time, so that what fails there is the change.
settings.register_profile("taskq", deadline=None, database=None, derandomize="CI" in os.environ)
settings.load_profile("taskq")

"""Where the fixtures of all tests come from."""

pytest_plugins = [
    "tests.support.rabbit",
    "tests.support.proxy",
    "tests.support.ledger",
    "tests.support.process",
    "tests.support.site",
]

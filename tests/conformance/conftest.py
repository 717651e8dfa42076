"""Failed assertions of the shipped suites show both sides."""

import pytest

pytest.register_assert_rewrite("durably.testing")

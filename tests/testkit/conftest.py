"""The plugin as users have it, whether or not this build of it is the one that is installed."""

from durably.testing.pytest_plugin import durable_env, pytest_pyfunc_call

__all__ = ["durable_env", "pytest_pyfunc_call"]

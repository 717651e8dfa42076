"""``durably instances``: everything that an operator does with instances, from any process, on any hub."""

"""``durably schedules``: a face of `Client.schedules`."""

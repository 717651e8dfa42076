"""The PostgreSQL provider: hubs that many hosts share."""

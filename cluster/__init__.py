"""How a job gets to a cluster; imports settings and errors only."""

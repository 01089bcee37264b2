"""Search for people and agents: pages, a JSON API, MCP, and what recorders push."""

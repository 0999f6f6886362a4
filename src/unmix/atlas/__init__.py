"""Atlas: a folder of static files that shows every feature in a browser, without server, network or account."""

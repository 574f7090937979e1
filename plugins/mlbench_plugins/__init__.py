"""The plugins that come with mlbench, found through entry points like anyone else's."""

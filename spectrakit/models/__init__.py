"""The networks. Each file is one system, readable in one sitting."""

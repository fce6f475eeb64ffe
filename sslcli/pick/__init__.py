"""`sslcli pick`: which samples to label next, as a CSV file, a page to label them on, or tasks for Label Studio."""

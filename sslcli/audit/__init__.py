"""`sslcli data audit`: copies, leaks between splits, outliers, likely wrong labels, worthless and unreadable samples."""

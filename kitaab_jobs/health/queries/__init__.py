"""The SQL of health. It only reads, takes no lock that anybody waits for, and the worker's rights suffice."""

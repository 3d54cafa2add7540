"""Published numbers: their folders, the order of their stages, the reports of our figures and the tables of these."""

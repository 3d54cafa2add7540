"""Prepared records and tokens -> what a plan cuts into steps, and its batches."""

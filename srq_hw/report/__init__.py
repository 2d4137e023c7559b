"""The report of a build: report.json against its schema, and report.html made from it."""

from srq_hw.report.schema import report_schema, validate

__all__ = ["report_schema", "validate"]

"""The central service: a REST API over a relational store."""

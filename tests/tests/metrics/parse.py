"""Reads metrics from standard input with the parser of Prometheus's own Python client, which refuses what is
not OpenMetrics, and prints each sample as one line of JSON: name, labels, value."""

import json
import sys

from prometheus_client.openmetrics.parser import text_string_to_metric_families

text = sys.stdin.read()
for family in text_string_to_metric_families(text):
    for sample in family.samples:
        print(json.dumps([sample.name, sample.labels, sample.value], allow_nan=False))

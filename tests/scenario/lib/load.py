"""The real client hey, and what it measured."""
import collections
import csv
import subprocess
import tempfile
from dataclasses import dataclass


@dataclass
class Answer:
    seconds: float      # from the request to the end of the answer
    status: int
    began: float        # seconds since hey began


class Run:
    """What one run of hey saw. Requests without an answer are in `errors`, not in `answers`."""

    def __init__(self, output, asked=None):
        lines = [line for line in output.splitlines() if line and line[0].isdigit()]
        self.answers = [Answer(float(row[0]), int(row[6]), float(row[7])) for row in csv.reader(lines)]
        self.asked = asked
        self.output = output

    def counts(self):
        """{status: how many}, as a plain dict."""
        return dict(collections.Counter(answer.status for answer in self.answers))

    def seconds(self, *statuses):
        """How long the answers with these statuses took, sorted."""
        return sorted(answer.seconds for answer in self.answers if answer.status in statuses)

    @property
    def errors(self):
        """Requests that got no answer at all; only known where -n was given."""
        return self.asked - len(self.answers)


def percentile(sorted_values, fraction):
    return sorted_values[min(len(sorted_values) - 1, int(len(sorted_values) * fraction))]


def hey_command(url, n=None, c=1, q=None, seconds=None, timeout=0, method="GET", data=None, data_file=None,
                fields=(), keep_alive=True):
    command = ["hey", "-o", "csv", "-c", str(c), "-t", str(timeout), "-m", method]
    command += ["-n", str(n)] if n else []
    command += ["-z", f"{seconds}s"] if seconds else []
    command += ["-q", str(q)] if q else []
    command += ["-d", data, "-T", "application/json"] if data is not None else []
    command += ["-D", data_file] if data_file else []
    command += [] if keep_alive else ["-disable-keepalive"]
    for field in fields:
        command += ["-H", field]
    return command + [url]


class Hey:
    """hey in the background: result() waits for its end. `timeout` is per request, in seconds, 0 for none."""

    def __init__(self, url, n=None, **options):
        self.asked = n
        self.output = tempfile.TemporaryFile("w+")      # a pipe would fill and stop it while nobody reads
        self.process = subprocess.Popen(hey_command(url, n, **options), stdin=subprocess.DEVNULL,
                                        stdout=self.output, stderr=subprocess.STDOUT)

    def result(self):
        code = self.process.wait()
        with self.output as output:
            output.seek(0)
            said = output.read()
        assert code == 0, said
        return Run(said, self.asked)


def hey(url, n=None, **options):
    return Hey(url, n, **options).result()

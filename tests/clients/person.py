"""A person without a browser: submits the form of the sign-in page, and runs commands that an agent passes on."""

import re
import shlex
import subprocess
import urllib.parse
import urllib.request

PASSWORD = "demo-password-1"
EMAIL = "demo@example.com"
SECRETS = re.compile(r"eyJ[\w-]+\.[\w-]+|bcp_[\w-]{12,}|demo-password-1")


def sign_in(url):
    page = urllib.request.urlopen(url).read().decode()
    form_token = re.search(r'name="form_token" value="([^"]+)"', page)[1]
    form = {"form_token": form_token, "email": EMAIL, "password": PASSWORD}
    # A browser sends the origin of the page with its forms.
    origin = {"origin": "http://" + urllib.parse.urlsplit(url).netloc}
    request = urllib.request.Request(f"{url}/sign-in", urllib.parse.urlencode(form).encode(), origin)
    answer = urllib.request.urlopen(request)
    assert "You are signed in" in answer.read().decode()


def link_in(told):
    """The link to the sign-in page in an answer, if it has one."""
    link = re.search(r"http://127\.0\.0\.1:\d+/[\w-]{40,}", told)
    return link and link[0]


def run(told, environment, *more, typed=""):
    """Runs the command in an answer as it is printed, with arguments for a terminal's questions."""
    command = shlex.split(re.search(r"`([^`]+)` in a terminal", told)[1])
    done = subprocess.run([*command, *more], env=environment, input=typed, text=True, capture_output=True, timeout=60)
    assert done.returncode == 0, done


def sign_in_by_command(told, environment):
    run(told, environment, "--email", EMAIL, "--password-stdin", typed=PASSWORD)

"""A person without a browser: fills in the sign-in page as one would."""

import re
import urllib.parse
import urllib.request

SECRETS = re.compile(r"eyJ[\w-]+\.[\w-]+|bcp_[\w-]{12,}|demo-password-1")


def sign_in(url):
    page = urllib.request.urlopen(url).read().decode()
    form_token = re.search(r'name="form_token" value="([^"]+)"', page)[1]
    form = {"form_token": form_token, "email": "demo@example.com", "password": "demo-password-1"}
    # As browsers do: a form that does not say where it comes from is refused.
    headers = {"Sec-Fetch-Site": "same-origin"}
    request = urllib.request.Request(f"{url}/sign-in", urllib.parse.urlencode(form).encode(), headers)
    answer = urllib.request.urlopen(request)
    assert "You are signed in" in answer.read().decode()

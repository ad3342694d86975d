"""Drives real clients through the whole of OAuth: `drive.py BINARY TOOLS [CLIENT…]`."""

import asyncio
import pathlib
import sys
import tempfile

import command_line
import python_sdk
import terminal
from browsers import Chromium, Forms
from server import Server

HERE = pathlib.Path(__file__).resolve().parent

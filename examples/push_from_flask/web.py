"""The web site: a Flask view pushes to whoever is concerned, in all browsers where they have the page open."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from flask import Flask, jsonify, request
from gatecrew import BlockingCluster
from itsdangerous import URLSafeTimedSerializer

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue

tokens = URLSafeTimedSerializer(os.environ["SITE_SECRET"], salt="websocket")
cluster = BlockingCluster(Path(__file__).with_name("gatecrew.toml"))  # one for the process, used from any thread
site = Flask(__name__)


@site.get("/token")
def token() -> ResponseReturnValue:
    """Tell a page with which token to open its WebSocket. A real site knows from its login who asks."""
    return jsonify(token=tokens.dumps(request.args["customer"]))


@site.post("/orders/<int:number>/shipped")
def shipped(number: int) -> ResponseReturnValue:
    """Take note that an order was shipped, and tell its customer at once."""
    customer = request.form["customer"]
    cluster.send_to_uid(customer, json.dumps({"order": number, "state": "shipped"}))
    return jsonify(online=cluster.is_uid_online(customer))

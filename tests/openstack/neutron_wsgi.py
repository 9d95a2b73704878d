"""Neutron's WSGI application, for tests with sqlite: a database that is locked is to Neutron what a deadlock is in MariaDB, and is tried
again.

Loaded by uwsgi in ``.venv-openstack``, never by the tests themselves.
"""

from neutron.wsgi.api import application as _application
from oslo_db import exception
from oslo_db.sqlalchemy import exc_filters
from sqlalchemy import exc


@exc_filters.filters("sqlite", exc.OperationalError, r".*database is locked")
def _locked(error, match, engine_name, is_disconnect):
    raise exception.DBDeadlock(error)


application = _application

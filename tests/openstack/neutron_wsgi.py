"""Neutron's WSGI application, for tests.

With sqlite, a database that is locked is to Neutron what a deadlock is in MariaDB, and is tried again. And policies are loaded before the
first request: Neutron loads them in the first one, and another that comes in the middle of that is refused (403) whatever it asks for.

Loaded by uwsgi in ``.venv-openstack``, in each process that serves, never by the tests themselves.
"""

from neutron import policy
from neutron.wsgi.api import application as _application
from oslo_db import exception
from oslo_db.sqlalchemy import exc_filters
from sqlalchemy import exc


@exc_filters.filters("sqlite", exc.OperationalError, r".*database is locked")
def _locked(error, match, engine_name, is_disconnect):
    raise exception.DBDeadlock(error)


policy.init()
application = _application

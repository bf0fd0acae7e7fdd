"""The paths below ``/payouts/``."""

from django.urls import path
from django.views.decorators.http import require_POST, require_safe

from . import views

urlpatterns = [
    path("", require_POST(views.create)),
    path("latest/", require_safe(views.latest)),
    path("<uuid:task>/", require_safe(views.show)),
]

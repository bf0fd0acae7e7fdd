"""The URL paths of the project."""

from django.urls import include, path

urlpatterns = [path("payouts/", include("payments.urls"))]

"""Which path is whose."""

from django.urls import include, path

urlpatterns = [path("payouts/", include("payments.urls"))]

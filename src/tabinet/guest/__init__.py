"""What guests are answered on their host: DHCP, router advertisements, metadata."""

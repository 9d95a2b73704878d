"""Attachments: workloads of orchestrators become endpoints of the fabric.

``netns`` attaches and detaches a network namespace; front ends of orchestrators translate their calls into its requests.
"""

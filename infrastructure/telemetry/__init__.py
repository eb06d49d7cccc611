"""The engine's observer for OpenTelemetry. The SDK is imported only where exporters are configured."""

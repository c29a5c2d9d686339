module pdctl.example/otel

go 1.25.0

module github.com/carillon-rt/carillon/clients/go

go 1.24

require github.com/coder/websocket v1.8.15

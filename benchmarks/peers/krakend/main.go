// Lura, the engine of KrakenD, as a peer of gateways.py where KrakenD CE itself cannot be had: the same configuration
// file, the engine's own proxies and its gin router, with the access log that KrakenD writes to its standard output.
package main

import (
	"context"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/luraproject/lura/v2/config"
	"github.com/luraproject/lura/v2/logging"
	"github.com/luraproject/lura/v2/proxy"
	"github.com/luraproject/lura/v2/router/gin"
	"github.com/luraproject/lura/v2/transport/http/server"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: krakend CONFIGURATION")
	}
	settings, err := config.NewParser().Parse(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	logger, err := logging.NewLogger("ERROR", os.Stderr, "[LURA]")
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	gin.NewFactory(gin.Config{
		Engine:         gin.NewEngine(settings, gin.EngineOptions{Logger: logger, Writer: os.Stdout}),
		ProxyFactory:   proxy.DefaultFactory(logger),
		HandlerFactory: gin.EndpointHandler,
		Logger:         logger,
		RunServer:      server.RunServer,
	}).NewWithContext(ctx).Run(settings)
}

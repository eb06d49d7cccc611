// What each size has. All instances together must find a connection: maximumInstances x 4 for each app (the pool's size
// of an instance) must stay below what the database's product allows.

@export()
var sizes = {
  small: {
    database: { name: 'Standard_B2s', tier: 'Burstable', storage: 32, highAvailability: 'Disabled', backupDays: 7 }
    serviceBus: 'Standard'
    instanceMemory: 2048
    maximumInstances: 10
    logDays: 30
  }
  medium: {
    database: { name: 'Standard_D2ds_v5', tier: 'GeneralPurpose', storage: 128, highAvailability: 'Disabled', backupDays: 14 }
    serviceBus: 'Standard'
    instanceMemory: 2048
    maximumInstances: 40
    logDays: 30
  }
  large: {
    database: { name: 'Standard_D8ds_v5', tier: 'GeneralPurpose', storage: 512, highAvailability: 'ZoneRedundant', backupDays: 35 }
    serviceBus: 'Premium'
    instanceMemory: 4096
    maximumInstances: 100
    logDays: 90
  }
}

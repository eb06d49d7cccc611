// PostgreSQL 17, with Entra ID alone: there is no password. Whoever deploys is its administrator.

import { administratorPrincipal } from 'types.bicep'

param tags object
param location string
param name string
param product {
  name: string
  tier: 'Burstable' | 'GeneralPurpose'
  storage: int
  highAvailability: 'Disabled' | 'ZoneRedundant'
  backupDays: int
}
param administrator administratorPrincipal
param migratingAddress string
@description('Empty for an endpoint that all of Azure, and one address, can reach.')
param privateSubnetId string
param networkId string

var isPrivate = !empty(privateSubnetId)

resource server 'Microsoft.DBforPostgreSQL/flexibleServers@2025-08-01' = {
  name: name
  location: location
  tags: tags
  sku: { name: product.name, tier: product.tier }
  properties: {
    createMode: 'Default'
    version: '17'
    authConfig: { activeDirectoryAuth: 'Enabled', passwordAuth: 'Disabled', tenantId: tenant().tenantId }
    storage: { storageSizeGB: product.storage, autoGrow: 'Enabled' }
    backup: { backupRetentionDays: product.backupDays, geoRedundantBackup: 'Disabled' }
    highAvailability: { mode: product.highAvailability }
    network: { publicNetworkAccess: isPrivate ? 'Disabled' : 'Enabled' }
  }

  // One after the other: the server refuses a second change while one is under way.
  resource owner 'administrators' = {
    name: administrator.id
    properties: {
      principalName: administrator.name
      principalType: administrator.type
      tenantId: tenant().tenantId
    }
  }

  resource jobs 'databases' = {
    name: 'coremachine'
    properties: { charset: 'UTF8', collation: 'en_US.utf8' }
    dependsOn: [owner]
  }

  // The addresses of Flex Consumption are not known before; 0.0.0.0 stands for all of Azure.
  resource fromAzure 'firewallRules' = if (!isPrivate) {
    name: 'from-azure'
    properties: { startIpAddress: '0.0.0.0', endIpAddress: '0.0.0.0' }
    dependsOn: [jobs]
  }

  resource fromMigration 'firewallRules' = if (!isPrivate && !empty(migratingAddress)) {
    name: 'migration'
    properties: { startIpAddress: migratingAddress, endIpAddress: migratingAddress }
    dependsOn: [fromAzure]
  }
}

module endpoint 'endpoint.bicep' = if (isPrivate) {
  name: 'database-endpoint'
  params: {
    tags: tags
    location: location
    name: name
    targetId: server.id
    group: 'postgresqlServer'
    zone: 'privatelink.postgres.database.azure.com'
    subnetId: privateSubnetId
    networkId: networkId
  }
}

output id string = server.id
output host string = server.properties.fullyQualifiedDomainName
